"""The one loop shape: dirty keys, a view, a decision, one guarded transaction."""
