package cryptostream.flink;

import java.io.Serializable;
import java.util.Set;

/**
 * What the deployment decides about an event (docs/contract.md).
 *
 * @param maxEventBytes longest value that is looked at, in bytes
 * @param symbols the symbols that are accepted
 */
public record EventRules(int maxEventBytes, Set<String> symbols) implements Serializable {

    static final long MIN_TIMESTAMP_MS = 946_684_800_000L;
    static final long END_TIMESTAMP_MS = 4_102_444_800_000L;

    /** Rules for {@code symbols} given as an array, which is what py4j can hand over. */
    public static EventRules of(int maxEventBytes, String[] symbols) {
        return new EventRules(maxEventBytes, Set.of(symbols));
    }
}
