"""What reads words, measured: on text and vectors, on named entities, against another."""
