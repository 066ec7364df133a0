"""The autoscaler's own rule over a load, second by second, beside the rules of other autoscalers."""
