"""The registered classifier: image bytes in, probabilities out, with its own preparation code."""
