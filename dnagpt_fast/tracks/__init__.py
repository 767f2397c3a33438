"""What a model says along a genome, base by base: tracks for genome browsers, and maps of mutations."""
