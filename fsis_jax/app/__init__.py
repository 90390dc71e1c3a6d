"""The page that `fsis app` shows in a browser; needs the extra `app`."""
