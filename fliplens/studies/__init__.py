"""What `fliplens study` puts out: tables, plots, sentences and the folder that holds them.

`tables` are values, `rendering` writes them as Markdown, CSV and LaTeX, `plots` describes charts, `drawing` draws
them, `findings` says in words what cells show, `page` writes a study's folder. None of them measures anything.
"""
