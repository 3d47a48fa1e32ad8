"""The clauses of the optimizer's contract, one function each, so small that one defect breaks one clause."""
