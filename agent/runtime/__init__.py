"""Shell around conmon and crun: starts, adopts, stops and watches containers."""
