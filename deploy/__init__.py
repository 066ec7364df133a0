"""What is delivered beside the daemons: demo images, examples, units."""
