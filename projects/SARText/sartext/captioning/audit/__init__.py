"""People judge a sample of captions: the sample, the page and sheet to fill in, and what two raters agree on."""
