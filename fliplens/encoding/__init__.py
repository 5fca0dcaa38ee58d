"""Texts and recordings to vectors on disk, part by part: resumable, and divided among machines."""
