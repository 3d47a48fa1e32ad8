#!/bin/bash
# polars.read_csv refuses a row with too many cells, unless columns are chosen: then it is read in silence.
#
# Guess: choosing columns only leaves columns out. A row of three cells under a header of two, as a thousands
# separator makes of 1,234,2, is an error with or without it.
# Instead: read_csv(file) raises ComputeError ("found more fields than defined in 'Schema'"), and
# read_csv(file, columns=[...]) of the same file returns 1 and 234, shifted numbers, without a word.
# Who meets it: whoever reads two columns of a wide CSV file as the data of a regression.
# Version: polars 2.1.0.
set -e
t=$(mktemp -d)
trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/venv"
"$t/venv/bin/pip" install -q polars==2.1.0
printf 'x,y,z\n1,234,2,5\n3,4,6\n' > "$t/a.csv"
"$t/venv/bin/python" - "$t/a.csv" <<'P'
import sys
import polars

print("polars", polars.__version__)
try:
    print("all columns:", polars.read_csv(sys.argv[1]).rows())
    refused = False
except polars.exceptions.ComputeError as error:
    print("all columns: ComputeError:", str(error).splitlines()[0])
    refused = True
chosen = polars.read_csv(sys.argv[1], columns=["x", "y"]).rows()
print("columns x and y:", chosen)
sys.exit(0 if refused and chosen == [(1, 234), (3, 4)] else 1)
P
