"""Labelled sequences from tables, FASTA, BED, VCF and annotations, and their split."""
