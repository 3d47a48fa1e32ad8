"""The course: lecture 3 with witnesses, and the bridge to the next lectures."""
