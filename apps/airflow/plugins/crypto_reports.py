"""Shows the pages of the DAG comparison_report in Airflow's own web server, to whoever is logged in there."""

from __future__ import annotations

import re

from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.plugins_manager import AirflowPlugin
from crypto_airflow import settings
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse

NAME = re.compile(r"latest|comparison-[0-9TZ-]+")
# The page needs nothing but its own styles, and runs no script.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
app = FastAPI(title="Comparison reports", docs_url=None, redoc_url=None, openapi_url=None)


@app.get("/{name}")
def page(name: str, _user: GetUserDep) -> FileResponse:
    """Return one page; `latest` is the newest."""
    path = settings.load().report.path / f"{name}.html"
    if not NAME.fullmatch(name) or not path.is_file():
        raise HTTPException(
            404, "there is no such report (yet): it is written once a day, or when the DAG is triggered"
        )
    return FileResponse(path, media_type="text/html", headers=HEADERS)


class CryptoReports(AirflowPlugin):
    """Airflow's description of it."""

    name = "crypto_reports"
    fastapi_apps = [{"app": app, "url_prefix": "/reports", "name": "Comparison reports"}]  # noqa: RUF012 - Airflow's form
    external_views = [  # noqa: RUF012
        {"name": "Comparison report", "href": "/reports/latest", "destination": "nav", "url_route": "comparison-report"}
    ]
