"""Training one model on one fold: device, seeds, loss, optimizer, loop. Needs Keras."""
