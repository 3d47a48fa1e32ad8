"""Will it converge? The certificate before the first step, the reason after a divergence."""
