"""What `python -m service` does besides serving."""
