"""From a bundle to a signed release: open safely, read the model, check it against boards, build, sign, check again."""
