"""What happened: a journal per gateway process, folded into one database."""
