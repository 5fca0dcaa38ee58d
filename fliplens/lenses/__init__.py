"""What reads words from vectors: the lens, whatever else does, their folders, and the words that come out."""
