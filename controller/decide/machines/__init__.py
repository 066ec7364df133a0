"""Pure: which machines a node group gets and gives back."""
