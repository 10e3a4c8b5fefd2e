"""What training, scoring and serving share: queries in, the top k labels out."""
