package cryptostream.flink;

import java.util.UUID;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.connector.jdbc.JdbcConnectionOptions;
import org.apache.flink.connector.jdbc.JdbcExecutionOptions;
import org.apache.flink.connector.jdbc.core.datastream.sink.JdbcSink;
import org.apache.flink.table.data.RowData;

/**
 * Writes price rows so that the first row of an event_id wins.
 *
 * <p>The SQL sink cannot: of the rows of one flush that share a key it keeps the last, and only DO UPDATE is known to
 * it. DO NOTHING also spares PostgreSQL a trigger call per replayed row.
 */
public final class PricesSink {

    private PricesSink() {}

    /**
     * Builds the sink for rows of (symbol, price, user, timestamp, event_id, produced_at, kafka_partition,
     * kafka_offset).
     *
     * @param table table name
     * @param flushIntervalMs longest time a row waits for others, in milliseconds
     * @param flushMaxRows rows after which no row waits
     * @param maxRetries tries before the job fails over
     */
    public static Sink<RowData> create(
            String url,
            String user,
            String password,
            String table,
            long flushIntervalMs,
            int flushMaxRows,
            int maxRetries) {
        String sql =
                "INSERT INTO \"" + table + "\" (symbol, price, \"user\", timestamp, event_id, produced_at,"
                        + " kafka_partition, kafka_offset) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
                        + " ON CONFLICT (event_id) DO NOTHING";
        return JdbcSink.<RowData>builder()
                .withQueryStatement(
                        sql,
                        (statement, row) -> {
                            statement.setString(1, row.getString(0).toString());
                            statement.setDouble(2, row.getDouble(1));
                            statement.setString(3, row.getString(2).toString());
                            statement.setLong(4, row.getLong(3));
                            statement.setObject(5, UUID.fromString(row.getString(4).toString()));
                            statement.setLong(6, row.getLong(5));
                            statement.setInt(7, row.getInt(6));
                            statement.setLong(8, row.getLong(7));
                        })
                .withExecutionOptions(
                        JdbcExecutionOptions.builder()
                                .withBatchIntervalMs(flushIntervalMs)
                                .withBatchSize(flushMaxRows)
                                .withMaxRetries(maxRetries)
                                .build())
                .buildAtLeastOnce(
                        new JdbcConnectionOptions.JdbcConnectionOptionsBuilder()
                                .withUrl(url)
                                .withDriverName("org.postgresql.Driver")
                                .withUsername(user)
                                .withPassword(password)
                                .build());
    }
}
