"""The runtime behind HTTP: an application, the page that it serves, and a client. Needs the extra [serve].

app.py        routes; `options.py` what a request may ask for, `results.py` what it gets
scheduler.py  one piece of work after another, a bounded queue, deadlines
problems.py   errors as RFC 9457 problem documents
client.py     a Python client
page/         the page at `/`: no build step, nothing from other hosts

Nothing here is imported by `import runtime`.
"""
