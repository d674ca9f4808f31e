"""A folder of explored machines as one HTML page and as pictures: see `page.explore_page`."""
