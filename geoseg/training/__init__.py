"""How the bundled models were made: generated and labelled scenes, targets, the training loop, the bundle writer."""
