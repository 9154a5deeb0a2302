"""What the lab's DAGs do, without Airflow: each module is one DAG's work, and can be tried on its own."""
