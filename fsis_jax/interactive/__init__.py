"""The session of a person who points at cells, looks and corrects; without a front end."""
