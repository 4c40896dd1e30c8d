"""The page of `lethax report`: what the folders of runs hold, as one HTML file that needs no network."""
