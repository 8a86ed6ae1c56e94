"""The gateway process: started by a launcher, wired together in `compose`, ended by its parent."""
