// Runs one HiveMQ CE for the tests: HiveMQ CONFIG DATA EXTENSIONS, three folders. It ends with its process.
import com.hivemq.embedded.EmbeddedHiveMQ;
import java.nio.file.Path;

public class HiveMQ {
    public static void main(String[] args) throws Exception {
        EmbeddedHiveMQ broker = EmbeddedHiveMQ.builder()
                .withConfigurationFolder(Path.of(args[0]))
                .withDataFolder(Path.of(args[1]))
                .withExtensionsFolder(Path.of(args[2]))
                .build();
        broker.start().join();
        Thread.currentThread().join();
    }
}
