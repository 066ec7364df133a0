"""Pure decisions: facts and now in, a plan and its sentence out."""
