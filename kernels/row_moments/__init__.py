"""Weight, mean and scatter of rows: what energies of scores that factorise are made of."""
