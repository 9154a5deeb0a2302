-- Both engines write ON CONFLICT DO NOTHING (docs/decisions/0003): neither has to change a row.
-- depends: 0003.views

REVOKE UPDATE ON crypto_prices_realtime, candles_1m_spark, rejected_messages FROM spark_writer;
REVOKE UPDATE ON crypto_prices_flink, candles_1m_flink, rejected_messages FROM flink_writer;
