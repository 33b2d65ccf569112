"""What is written about a registered version, from what was measured: model card, decision log."""
