"""What calls to services on the network have in common, whichever service: repetition, keys, budget, kept answers.

`calls`: one call, repeated where that may help, and what is said when it does not; `google`: the Gemini API by its
own client; `budget`: how much may be sent; `vector_cache`: vectors that were paid for, on disk. Clients are imported
where they are first needed.
"""
