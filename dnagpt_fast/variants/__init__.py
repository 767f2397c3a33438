"""Variants of a genome: their scores, and VCF files that get them."""
