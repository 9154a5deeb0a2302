# The port matrix: which group may talk to which, on what. Every rule between nodes follows from it, and nothing else is
# open. The numbers are read where the roles read them.

locals {
  ansible        = "${path.module}/../../ansible"
  contract_ports = yamldecode(file("${local.ansible}/playbooks/group_vars/all/contract.yml")).contract_ports
  role_defaults  = merge([for role in ["spark", "flink", "spark_job", "flink_job"] : yamldecode(file("${local.ansible}/roles/${role}/defaults/main.yml"))]...)

  # A port that a program lets the kernel choose (net.ipv4.ip_local_port_range of Debian).
  chosen_by_kernel = [32768, 60999]

  # Each worker has a port of its own, from the contract's on (lab_spark_worker_ui_ports).
  spark_worker_uis = distinct([local.contract_ports.spark_worker_ui, local.contract_ports.spark_worker_ui + max(length(module.topology.groups["spark_worker"]), 1) - 1])

  # Service => its port or [first, last], the group that serves it, the groups that may use it, and what for. Without
  # clients, people reach it through SSH only.
  service_ports = {
    kafka = {
      ports = local.contract_ports.kafka, to = "kafka"
      from  = ["kafka", "producer", "submitter", "spark_worker", "flink_jobmanager", "flink_taskmanager", "airflow", "monitoring"]
      why   = "messages and metadata"
    }
    kafka_controller = {
      ports = local.contract_ports.kafka_controller, to = "kafka", from = ["kafka"]
      why   = "the brokers' quorum"
    }
    postgres = {
      ports = local.contract_ports.postgres, to = "postgres"
      from  = ["submitter", "spark_worker", "flink_taskmanager", "airflow", "monitoring"]
      why   = "rows of both engines, the audit, the dashboard, and Airflow's metadata and checks"
    }
    spark_master = {
      ports = local.contract_ports.spark_master, to = "spark_master", from = ["spark_worker", "submitter"]
      why   = "workers and the driver register"
    }
    spark_master_ui = {
      ports = local.contract_ports.spark_master_ui, to = "spark_master", from = ["spark_worker", "monitoring"]
      why   = "workers wait for the master, and their health is asked there; Prometheus"
    }
    spark_worker = {
      ports = local.role_defaults.spark_worker_port, to = "spark_worker", from = ["spark_master"]
      why   = "the master starts executors"
    }
    spark_worker_ui = {
      ports = local.spark_worker_uis, to = "spark_worker", from = ["monitoring"]
      why   = "a web page, and Prometheus"
    }
    spark_driver = {
      ports = local.chosen_by_kernel, to = "submitter", from = ["spark_master", "spark_worker"]
      why   = "driver and its block manager, to which executors and the master connect"
    }
    spark_executor = {
      ports = local.chosen_by_kernel, to = "spark_worker", from = ["spark_worker", "submitter"]
      why   = "block managers: shuffles and broadcasts"
    }
    spark_application_ui = {
      ports = local.contract_ports.spark_application_ui, to = "submitter", from = ["monitoring"]
      why   = "a web page, and Prometheus"
    }
    spark_job_metrics = {
      ports = local.role_defaults.spark_job_metrics_port, to = "submitter", from = ["monitoring"]
      why   = "Prometheus"
    }
    flink_ui = {
      ports = local.contract_ports.flink_ui, to = "flink_jobmanager", from = ["submitter", "flink_taskmanager"]
      why   = "REST: the supervisor submits the job, task managers' health is asked there"
    }
    flink_rpc = {
      ports = local.role_defaults.flink_rpc_port, to = "flink_jobmanager", from = ["flink_taskmanager"]
      why   = "task managers register"
    }
    flink_blob = {
      ports = local.role_defaults.flink_blob_port, to = "flink_jobmanager", from = ["flink_taskmanager"]
      why   = "task managers fetch the job's jars"
    }
    flink_taskmanager = {
      ports = local.chosen_by_kernel, to = "flink_taskmanager", from = ["flink_jobmanager", "flink_taskmanager"]
      why   = "tasks are deployed, and exchange rows"
    }
    flink_metrics = {
      ports = local.chosen_by_kernel, to = "flink_jobmanager", from = ["flink_taskmanager"]
      why   = "task managers answer the job manager's questions for metrics"
    }
    flink_job_metrics = {
      ports = local.role_defaults.flink_job_metrics_port, to = "submitter", from = ["monitoring"]
      why   = "Prometheus"
    }
    producer_metrics = {
      ports = local.contract_ports.producer_metrics, to = "producer", from = ["monitoring"]
      why   = "Prometheus"
    }
    kafka_metrics = {
      ports = local.contract_ports.kafka_metrics, to = "kafka", from = ["monitoring"]
      why   = "Prometheus"
    }
    postgres_metrics = {
      ports = local.contract_ports.postgres_metrics, to = "postgres", from = ["monitoring"]
      why   = "Prometheus"
    }
    flink_jobmanager_metrics = {
      ports = local.contract_ports.flink_jobmanager_metrics, to = "flink_jobmanager", from = ["monitoring"]
      why   = "Prometheus"
    }
    flink_taskmanager_metrics = {
      ports = local.contract_ports.flink_taskmanager_metrics, to = "flink_taskmanager", from = ["monitoring"]
      why   = "Prometheus"
    }
    prometheus = {
      ports = local.contract_ports.prometheus, to = "monitoring", from = []
      why   = "a web page"
    }
    replay = {
      ports = local.contract_ports.replay, to = "producer", from = []
      why   = "the producer's own node"
    }
    kafka_ui = {
      ports = local.contract_ports.kafka_ui, to = "monitoring", from = []
      why   = "a web page"
    }
    dashboard = {
      ports = local.contract_ports.dashboard, to = "monitoring", from = []
      why   = "a web page"
    }
    airflow_restarts_producer = {
      ports = 22, to = "producer", from = ["airflow"]
      why   = "Airflow's key restarts units, and can do nothing else there"
    }
    airflow_restarts_submitter = {
      ports = 22, to = "submitter", from = ["airflow"]
      why   = "Airflow's key restarts units, and can do nothing else there"
    }
    airflow_restarts_flink_jobmanager = {
      ports = 22, to = "flink_jobmanager", from = ["airflow"]
      why   = "Airflow's key restarts units, and can do nothing else there"
    }
    airflow_restarts_flink_taskmanager = {
      ports = 22, to = "flink_taskmanager", from = ["airflow"]
      why   = "Airflow's key restarts units, and can do nothing else there"
    }
    airflow = {
      ports = local.contract_ports.airflow, to = "airflow", from = []
      why   = "a web page"
    }
  }

  port_matrix = merge(local.service_ports, {
    for group in keys(module.topology.groups) : "node_metrics_${group}" => {
      ports = local.contract_ports.node_metrics, to = group, from = ["monitoring"]
      why   = "Prometheus, for the node itself"
    }
  })
}
