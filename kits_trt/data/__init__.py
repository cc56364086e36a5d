"""Cases on disk, what a stage sees of them, and the samples that its nets are taught with."""
