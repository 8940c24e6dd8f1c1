"""Reads a page as a browser would, and fails on what a browser would forgive."""

from html.parser import HTMLParser

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Fails on unbalanced tags; collects ids, addresses, labels and text."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.ids, self.addresses, self.labels, self.words = [], [], [], [], []
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.stack.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href"):
                self.addresses.append(value)
        if tag == "svg" and ("aria-hidden", "true") not in attrs:
            self.labels.append(dict(attrs)["aria-label"])

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
