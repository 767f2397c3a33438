"""dnagpt_fast: train, fine-tune and use DNAGPT straight from packed 2-bit genomes."""
