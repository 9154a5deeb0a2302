package cryptostream.flink;

import java.io.IOException;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.util.Collections;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.SinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.connector.jdbc.JdbcConnectionOptions;
import org.apache.flink.connector.jdbc.JdbcExecutionOptions;
import org.apache.flink.connector.jdbc.core.datastream.sink.JdbcSink;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.types.logical.RowType;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Writes rows to PostgreSQL so that the first row of a key wins, through the JDBC connector's DataStream sink.
 *
 * <p>Why not the connector's SQL sink: of the rows of one flush that share a key it keeps the last, and it knows DO
 * UPDATE only. And a writer that cannot flush when it is closed throws, which Flink takes for a reason to end the whole
 * task manager; a database that restarts would take it down.
 */
public final class FirstRowSink implements Sink<RowData> {

    private static final long serialVersionUID = 1L;
    private static final Logger LOG = LoggerFactory.getLogger(FirstRowSink.class);

    private final JdbcSink<RowData> jdbc;

    private FirstRowSink(JdbcSink<RowData> jdbc) {
        this.jdbc = jdbc;
    }

    /**
     * Builds a sink for rows whose fields have the names of the table's columns.
     *
     * @param key columns of the table's primary key, separated by commas
     * @param flushIntervalMs longest time a row waits for others, in milliseconds
     * @param flushMaxRows rows after which no row waits
     * @param maxRetries tries before the job fails over
     */
    public static FirstRowSink create(
            String url,
            String user,
            String password,
            String table,
            String key,
            RowType rowType,
            long flushIntervalMs,
            int flushMaxRows,
            int maxRetries) {
        return new FirstRowSink(
                JdbcSink.<RowData>builder()
                        .withQueryStatement(
                                insertStatement(table, key, rowType),
                                (statement, row) -> bind(statement, row, rowType))
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
                                        .build()));
    }

    private static String insertStatement(String table, String key, RowType rowType) {
        // All on one line and with plain question marks: that is the form the driver can turn into one many-row insert.
        return "INSERT INTO \"" + table + "\" (\"" + String.join("\", \"", rowType.getFieldNames()) + "\") VALUES ("
                + String.join(", ", Collections.nCopies(rowType.getFieldCount(), "?"))
                + ") ON CONFLICT (" + key + ") DO NOTHING";
    }

    private static void bind(PreparedStatement statement, RowData row, RowType rowType) throws SQLException {
        for (int field = 0; field < rowType.getFieldCount(); field++) {
            int parameter = field + 1;
            if (row.isNullAt(field)) {
                statement.setObject(parameter, null);
                continue;
            }
            switch (rowType.getTypeAt(field).getTypeRoot()) {
                case CHAR, VARCHAR -> {
                    StringData text = row.getString(field);
                    statement.setString(parameter, text.toString());
                }
                case VARBINARY -> statement.setBytes(parameter, row.getBinary(field));
                case DOUBLE -> statement.setDouble(parameter, row.getDouble(field));
                case BIGINT -> statement.setLong(parameter, row.getLong(field));
                case INTEGER -> statement.setInt(parameter, row.getInt(field));
                default -> throw new IllegalArgumentException("no binding for " + rowType.getTypeAt(field));
            }
        }
    }

    @Override
    public SinkWriter<RowData> createWriter(WriterInitContext context) throws IOException {
        return new Writer(jdbc.createWriter(context));
    }

    private static final class Writer implements SinkWriter<RowData> {

        private final SinkWriter<RowData> writer;

        Writer(SinkWriter<RowData> writer) {
            this.writer = writer;
        }

        @Override
        public void write(RowData row, Context context) throws IOException, InterruptedException {
            writer.write(row, context);
        }

        @Override
        public void flush(boolean endOfInput) throws IOException, InterruptedException {
            writer.flush(endOfInput);
        }

        @Override
        public void close() {
            try {
                writer.close();
            } catch (Exception e) {
                // No row is lost: what no checkpoint has flushed is read again.
                LOG.warn("Closed without writing the last rows", e);
            }
        }
    }
}
