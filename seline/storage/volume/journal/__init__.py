"""The second commit form: a batch is durable once it is in the journal; files follow."""
