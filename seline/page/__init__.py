"""The page: what the owner sees and does with a browser, on the operations of the admin API.

`assembly` adds the routes of every view to the app. A view is one module with a `View`, one
template, and one table of texts for each language. A handler gets a `Visit`: it reads the form,
calls one operation, and renders or redirects. Every form works without scripts.
"""
