"""What a job stands on: its file, the lease on it, its status, and the stages that it runs."""
