"""What leaves the repository: bundle, then publish; and the note on the merge request."""
