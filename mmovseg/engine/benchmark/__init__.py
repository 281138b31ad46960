"""One run that measures the speed of everything, as ratios to the rate of the machine itself."""
