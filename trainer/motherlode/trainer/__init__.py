"""Learn query encoders and label embeddings, and publish them as bundles."""
