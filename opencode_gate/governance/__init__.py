"""Who may do what: pure decisions, with clock and facts handed in."""
