"""Every form of a model on disk: published files, run folders, checkpoints, Hugging Face folders."""
