"""Where tiles come together: the store of predictions and the journal of finished tiles."""
